# libdiffuse_fast: the C ABI of csrc/capi as a shared library, installed with its header and a package for find_package.

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

add_library(diffuse_fast SHARED csrc/capi/capi.cpp)
target_link_libraries(diffuse_fast PRIVATE diffuse_fast_core)
target_compile_definitions(diffuse_fast PRIVATE DF_VERSION="${PROJECT_VERSION}")
target_include_directories(diffuse_fast INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
set_target_properties(diffuse_fast PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION 0 PUBLIC_HEADER csrc/capi/diffuse_fast.h)
# Nothing but the C ABI is exported: no symbol of the core, nor of the C++ library's templates in it.
if(APPLE)
  target_link_options(diffuse_fast PRIVATE -Wl,-exported_symbol,_df_*)
else()
  set(map ${CMAKE_CURRENT_SOURCE_DIR}/csrc/capi/exports.map)
  target_link_options(diffuse_fast PRIVATE -Wl,--version-script=${map})
  set_target_properties(diffuse_fast PROPERTIES LINK_DEPENDS ${map})
endif()

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/diffuse_fast)
install(TARGETS diffuse_fast EXPORT diffuse_fast PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT diffuse_fast NAMESPACE diffuse_fast:: FILE diffuse_fast-config.cmake DESTINATION ${package})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/diffuse_fast-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/diffuse_fast-config-version.cmake DESTINATION ${package})
