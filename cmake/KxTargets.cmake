# kx_library(NAME SOURCES... [PUBLIC deps...] [PRIVATE deps...])
# One static library per folder. Its own folder is no include directory: every include is written from the root
# of the tree ("common/base/error.h"), so that a line says which layer it reaches into.
function(kx_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${arg_PUBLIC} PRIVATE kx_flags ${arg_PRIVATE} Threads::Threads)
endfunction()

# kx_test(NAME LABEL SOURCES... [LINK deps...] [TIMEOUT seconds] [DEFINES...]): one cmocka program, one ctest with
# label unit, integration, e2e, golden or fuzz. TIMEOUT (300) ends what hangs, and says nothing of how long a test takes:
# it is ten times that at least, for a machine that has other things to do.
function(kx_test name label)
  cmake_parse_arguments(arg "" "TIMEOUT" "SOURCES;LINK;DEFINES" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_compile_definitions(${name} PRIVATE KX_SOURCE_DIR="${CMAKE_SOURCE_DIR}" ${arg_DEFINES})
  target_link_libraries(${name} PRIVATE kx_flags ${arg_LINK} PkgConfig::cmocka Threads::Threads)
  add_test(NAME ${label}.${name} COMMAND ${name})
  # What may take long is begun first, where two run at a time.
  set_tests_properties(${label}.${name} PROPERTIES LABELS ${label} TIMEOUT ${arg_TIMEOUT} COST ${arg_TIMEOUT})
  if(KX_SANITIZE)
    # OpenVINO's thread pool looks for its plug-ins in a way that sanitizers end a program for, unless told of them.
    set_tests_properties(${label}.${name} PROPERTIES ENVIRONMENT
      "TBB_ENABLE_SANITIZERS=1;TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/tsan.supp")
  endif()
endfunction()

# kx_proto(NAME FILES...): protobuf-c output, kept in the build tree. What protoc-c writes is no code of ours to tidy.
function(kx_proto name)
  set(out ${CMAKE_CURRENT_BINARY_DIR})
  foreach(file ${ARGN})
    get_filename_component(base ${file} NAME_WE)
    add_custom_command(
      OUTPUT ${out}/${base}.pb-c.c ${out}/${base}.pb-c.h
      COMMAND ${PROTOC_C} --proto_path=${CMAKE_CURRENT_SOURCE_DIR} --c_out=${out} ${CMAKE_CURRENT_SOURCE_DIR}/${file}
      DEPENDS ${file})
    list(APPEND sources ${out}/${base}.pb-c.c)
  endforeach()
  add_library(${name} STATIC ${sources})
  set_target_properties(${name} PROPERTIES C_CLANG_TIDY "")
  target_include_directories(${name} SYSTEM PUBLIC ${CMAKE_BINARY_DIR})
  target_link_libraries(${name} PUBLIC PkgConfig::protobuf-c)
endfunction()
