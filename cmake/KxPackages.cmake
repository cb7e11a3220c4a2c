# Every outside library, each as one imported target (headers count as SYSTEM). Who may link which is a rule of
# the layout: one folder per library (docs/architecture.md), and tests/layers.py holds the includes to it.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

pkg_check_modules(av REQUIRED IMPORTED_TARGET libavformat libavcodec libavutil libswresample libswscale)
pkg_check_modules(rdkafka REQUIRED IMPORTED_TARGET rdkafka)
pkg_check_modules(zmq REQUIRED IMPORTED_TARGET libzmq)
pkg_check_modules(protobuf-c REQUIRED IMPORTED_TARGET libprotobuf-c)
pkg_check_modules(openblas REQUIRED IMPORTED_TARGET openblas)
pkg_check_modules(jansson REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(zlib REQUIRED IMPORTED_TARGET zlib)
pkg_check_modules(crypto REQUIRED IMPORTED_TARGET libcrypto)
pkg_check_modules(seccomp REQUIRED IMPORTED_TARGET libseccomp)
pkg_check_modules(curl REQUIRED IMPORTED_TARGET libcurl)
pkg_check_modules(expat REQUIRED IMPORTED_TARGET expat)
pkg_check_modules(microhttpd REQUIRED IMPORTED_TARGET libmicrohttpd)
pkg_check_modules(cmocka REQUIRED IMPORTED_TARGET cmocka)
find_library(KX_ROCKSDB rocksdb REQUIRED) # Debian ships no pkg-config file for it
find_program(PROTOC_C protoc-c REQUIRED)

# OpenVINO: the wheel is a complete SDK, unpacked by scripts/deps.
set(KX_OPENVINO_DIR ${CMAKE_SOURCE_DIR}/.deps/openvino CACHE PATH "unpacked OpenVINO wheel")
if(NOT EXISTS ${KX_OPENVINO_DIR}/include/openvino/c/openvino.h)
  message(FATAL_ERROR "OpenVINO is not in ${KX_OPENVINO_DIR}. Run scripts/deps first.")
endif()
file(GLOB KX_OPENVINO_C ${KX_OPENVINO_DIR}/libs/libopenvino_c.so.*)
add_library(openvino_c SHARED IMPORTED)
set_target_properties(openvino_c PROPERTIES
  IMPORTED_LOCATION ${KX_OPENVINO_C}
  INTERFACE_INCLUDE_DIRECTORIES ${KX_OPENVINO_DIR}/include)
