// What the bindings of the network and of the loop share.
#pragma once

#include <vector>

#include "network/network.h"

namespace df::bindings {

// Rows prepared by a network, in order.
struct PreparedRows {
  std::vector<network::RowHandle> rows;
};

}  // namespace df::bindings
