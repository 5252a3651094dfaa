# Toolchain choices, third-party packages and the one way to declare a room.

get_filename_component(UMBEL_ROOT ${CMAKE_CURRENT_LIST_DIR}/.. ABSOLUTE)

find_program(UMBEL_CCACHE ccache)
if(UMBEL_CCACHE)
  # The sloppiness lets ccache look through precompiled headers; the base, share between clones.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros
      CCACHE_BASEDIR=${UMBEL_ROOT} CCACHE_NOHASHDIR=1 ${UMBEL_CCACHE})
endif()
find_program(UMBEL_MOLD mold)
if(UMBEL_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

if(UMBEL_SANITIZE)
  add_compile_options(-fsanitize=${UMBEL_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${UMBEL_SANITIZE})
  if(UMBEL_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
  if(UMBEL_SANITIZE MATCHES "thread")
    # Asio uses std::atomic_thread_fence, which TSan does not model.
    add_compile_options(-Wno-tsan)
  endif()
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Debug")
  add_compile_options(-g1)
endif()

find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(Protobuf REQUIRED)
find_package(SQLite3 REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(spdlog REQUIRED)
find_package(fmt REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(PNG REQUIRED)
find_package(ZLIB REQUIRED)
pkg_check_modules(LIBZIP REQUIRED IMPORTED_TARGET libzip)
find_package(GTest QUIET)
find_path(UMBEL_RAPIDCHECK_INCLUDE rapidcheck.h)
find_library(UMBEL_RAPIDCHECK_LIB rapidcheck)

add_library(umbel_boost INTERFACE)
target_compile_definitions(umbel_boost INTERFACE
  BOOST_ASIO_NO_DEPRECATED BOOST_ASIO_SEPARATE_COMPILATION BOOST_BEAST_SEPARATE_COMPILATION
  BOOST_ASIO_DISABLE_VISIBILITY)
target_link_libraries(umbel_boost INTERFACE Threads::Threads OpenSSL::SSL OpenSSL::Crypto)

add_library(umbel_warnings INTERFACE)
target_compile_options(umbel_warnings INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wold-style-cast -Werror)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 takes moved-from variants for uninitialized; ASan and the fuzzers look for the real ones.
  target_compile_options(umbel_warnings INTERFACE -Wno-maybe-uninitialized)
endif()

# umbel_room(NAME DEPS rooms... LIBS third-party...)
# One folder, one library, one test binary: every *_test.cc beside the source goes to NAME_test.
function(umbel_room name)
  cmake_parse_arguments(ROOM "" "" "DEPS;LIBS;PCH" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  add_library(umbel_${name} STATIC ${sources})
  target_include_directories(umbel_${name} PUBLIC ${UMBEL_ROOT}/src)
  list(TRANSFORM ROOM_DEPS PREPEND umbel_)
  target_link_libraries(umbel_${name} PUBLIC ${ROOM_DEPS} ${ROOM_LIBS} PRIVATE umbel_warnings)
  if(ROOM_PCH)
    target_precompile_headers(umbel_${name} PRIVATE ${ROOM_PCH})
  endif()
  if(UMBEL_TESTS AND tests)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE umbel_${name} umbel_warnings GTest::gtest_main
      ${UMBEL_RAPIDCHECK_LIB})
    target_include_directories(${name}_test SYSTEM PRIVATE ${UMBEL_RAPIDCHECK_INCLUDE})
    target_compile_definitions(${name}_test PRIVATE
      UMBEL_SOURCE_DIR="${UMBEL_ROOT}")
    include(GoogleTest)
    gtest_discover_tests(${name}_test DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 300)
  endif()
endfunction()

# umbel_embed(ROOM FOLDER HEADER NAME): python/umbel/FOLDER inside the room's library, given by the
# function NAME that HEADER declares.
function(umbel_embed room folder header name)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/${folder}_sources.gen.cc)
  set(from ${UMBEL_ROOT}/python/umbel/${folder})
  file(GLOB sources CONFIGURE_DEPENDS ${from}/*.py)
  add_custom_command(
    OUTPUT ${out}
    COMMAND ${CMAKE_COMMAND} -DOUT=${out} -DFROM=${from} -DHEADER=${header} -DROOM=${room}
            -DNAME=${name} -P ${UMBEL_ROOT}/cmake/embed.cmake
    DEPENDS ${sources} ${UMBEL_ROOT}/cmake/embed.cmake)
  target_sources(umbel_${room} PRIVATE ${out})
endfunction()

# umbel_embed_text(ROOM FILE HEADER NAME): the file as one string inside the room's library, given by
# the function NAME that HEADER declares.
function(umbel_embed_text room file header name)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/${name}.gen.cc)
  add_custom_command(
    OUTPUT ${out}
    COMMAND ${CMAKE_COMMAND} -DOUT=${out} -DFROM=${UMBEL_ROOT}/${file} -DHEADER=${header}
            -DROOM=${room} -DNAME=${name} -P ${UMBEL_ROOT}/cmake/embed_text.cmake
    DEPENDS ${UMBEL_ROOT}/${file} ${UMBEL_ROOT}/cmake/embed_text.cmake)
  target_sources(umbel_${room} PRIVATE ${out})
endfunction()
