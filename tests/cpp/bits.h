#pragma once

// Prints the table of expected_bits.inc: a name and a checksum per line.
void print_bits();
