# The CUDA step: built if a compiler is found (USE_CUDA=AUTO), always (ON) or never (OFF). A build without it has a stub.

if(NOT USE_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "USE_CUDA is '${USE_CUDA}'; it must be AUTO, ON or OFF.")
endif()

set(DIFFUSE_FAST_CUDA OFF)
if(NOT USE_CUDA STREQUAL "OFF")
  # check_language tries the compiler in a project of its own: a broken one is detected, where enable_language would end the
  # configuration. It looks in CUDACXX and on the path only, so a compiler from CMAKE_CUDA_COMPILER or from an earlier
  # configuration is passed by CUDACXX. A compiler that an earlier configuration did not find is searched for again.
  if(NOT DEFINED CMAKE_CUDA_COMPILER_LOADED)
    if(CMAKE_CUDA_COMPILER)
      set(ENV{CUDACXX} "${CMAKE_CUDA_COMPILER}")
    endif()
    unset(CMAKE_CUDA_COMPILER)
    unset(CMAKE_CUDA_COMPILER CACHE)
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(DIFFUSE_FAST_CUDA ON)
  elseif(USE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "USE_CUDA=ON, but no working CUDA compiler was found. Install the CUDA toolkit 12 or 13 (its nvcc on the "
      "path, or named by the environment variable CUDACXX; docs/gpu.md says how to take it from PyPI) and a C++ compiler that it "
      "supports, or configure with -DUSE_CUDA=AUTO or OFF. The failed check is in ${CMAKE_BINARY_DIR}/CMakeFiles/CheckCUDA.")
  else()
    message(STATUS "CUDA: no working compiler found; building without the CUDA kernels (USE_CUDA=AUTO)")
  endif()
endif()

if(NOT DIFFUSE_FAST_CUDA)
  target_sources(diffuse_fast_core PRIVATE csrc/step/cuda/no_cuda.cpp)
  return()
endif()

# Machine code for every generation that the compiler knows, from 75 on, and PTX of the newest for future ones. Code for the first
# chip of a generation runs on the others; 86 and 89 are compiled too because they are common.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch OUTPUT_VARIABLE known ERROR_QUIET)
  set(wanted 75 80 86 89 90 100 120)
  set(CMAKE_CUDA_ARCHITECTURES)
  foreach(number IN LISTS wanted)
    if(known MATCHES "compute_${number}\n")
      list(APPEND CMAKE_CUDA_ARCHITECTURES ${number}-real)
      set(newest ${number})
    endif()
  endforeach()
  list(APPEND CMAKE_CUDA_ARCHITECTURES ${newest}-virtual)
endif()
enable_language(CUDA)
if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake before 3.26 knows nvcc's C++ standards up to 17
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
endif()
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)  # the module is imported on machines without driver and toolkit
message(STATUS "CUDA: ${CMAKE_CUDA_COMPILER} ${CMAKE_CUDA_COMPILER_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES}")

add_library(diffuse_fast_cuda OBJECT csrc/step/cuda/device.cu csrc/step/cuda/step.cu)
set_target_properties(diffuse_fast_cuda PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_VISIBILITY_PRESET hidden)
target_include_directories(diffuse_fast_cuda PRIVATE csrc)
string(REPLACE ";" "," architectures "${CMAKE_CUDA_ARCHITECTURES}")
target_compile_definitions(diffuse_fast_cuda PRIVATE "DF_CUDA_ARCHITECTURES=\"${architectures}\"")
# -fmad=false: the compiler fuses a multiply and an add only where the source says fma.
target_compile_options(diffuse_fast_cuda PRIVATE -fmad=false -Xcompiler=-Wall -Xfatbin=-compress-all)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13)
  target_compile_options(diffuse_fast_cuda PRIVATE --compress-mode=size)  # a fifth less than its default; every driver for 13 reads it
endif()
target_sources(diffuse_fast_core PRIVATE $<TARGET_OBJECTS:diffuse_fast_cuda>)
# The target was created before the architectures were known, and CMake's Makefiles need them for every target with CUDA objects.
set_target_properties(diffuse_fast_core PROPERTIES CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
