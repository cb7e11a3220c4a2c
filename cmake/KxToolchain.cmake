# Language, warnings and sanitizers for everything that is ours.
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON) # GNU: cleanup attributes, accept4, memfd_create
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

add_library(kx_flags INTERFACE)
target_compile_definitions(kx_flags INTERFACE _GNU_SOURCE _FILE_OFFSET_BITS=64)
target_compile_options(kx_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wvla -Wmissing-prototypes -Wstrict-prototypes
  -Wno-sign-conversion
  -fno-common -fstack-protector-strong
  # Stored bytes must not depend on how a compiler contracts a*b+c.
  -ffp-contract=off)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  # Jumping over a cleanup variable leaves it unset when the scope ends.
  target_compile_options(kx_flags INTERFACE -Werror=jump-misses-init)
endif()
if(KX_WERROR)
  target_compile_options(kx_flags INTERFACE -Werror)
endif()
if(KX_SANITIZE)
  target_compile_options(kx_flags INTERFACE -fsanitize=${KX_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(kx_flags INTERFACE -fsanitize=${KX_SANITIZE})
endif()
if(KX_FUZZ)
  # What libFuzzer needs to see where an input got to; its main() comes with the targets of tests/fuzz alone.
  target_compile_options(kx_flags INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(kx_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
