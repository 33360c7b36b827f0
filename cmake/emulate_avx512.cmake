# The AVX-512 code for a processor with AVX2 (`make emulate-avx512`): a header that stands before the compiler's <immintrin.h> makes
# its intrinsics functions of SIMDe. It shows the bits, not the speed; so -O1, which compiles in an eighth of the time.
find_path(simde simde/x86/avx512.h HINTS ${DIFFUSE_FAST_SIMDE} NO_CACHE REQUIRED)
add_isa(avx512 -mavx2 -mfma -mf16c -O1)
foreach(part step network)
  target_compile_definitions(diffuse_fast_${part}_avx512 PRIVATE DF_EMULATED=1)
  target_include_directories(diffuse_fast_${part}_avx512 SYSTEM PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/tests/cpp/emulated ${simde})
endforeach()
