# One Emscripten build of {simd128, relaxed} x {one thread, threads, threads and memory64}: web/dist/nibl-<variant>.js and
# .wasm, the same with the quantizer as nibl-<variant>-quantize, and checkkern for Node. JavaScript imports the .js as an ES module and gives its function:
#   wasmMemory             the memory; its maximum is the caller's plan
#   instantiateWasm        optional, (imports, done) => done(instance, module): the caller compiles the .wasm itself
# and of threads takes PThread, by which web/binaries.js starts workers
set(variant simd128)
if(NIBL_WASM_RELAXED)
    set(variant relaxed)
endif()
set(initial_memory 2MB)
set(maximum_memory 4GB)
set(malloc emmalloc) # the smaller one
if(NIBL_WASM_THREADS)
    set(initial_memory 4MB)
endif()
if(NIBL_WASM_MEMORY64)
    string(APPEND variant -memory64)
    set(maximum_memory 16GB) # what engines allow
    set(malloc dlmalloc) # emmalloc gives no block above 4 GB
elseif(NIBL_WASM_THREADS)
    string(APPEND variant -threads)
endif()

# One binary of the library: what it holds follows from what it exports. ARGN: the tags of exports.txt that it has.
function(add_variant target output)
    set(exports ${PROJECT_SOURCE_DIR}/wasm/exports.txt)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${exports})
    file(STRINGS ${exports} lines REGEX "^[a-z]")
    foreach(line IN LISTS lines)
        if(NOT line MATCHES "^([a-z0-9_]+) ([_p]+)( ([a-z]+))?$")
            message(FATAL_ERROR "${exports}: '${line}' is no name and signature")
        endif()
        if(CMAKE_MATCH_4 AND NOT CMAKE_MATCH_4 IN_LIST ARGN)
            continue()
        endif()
        list(APPEND names _${CMAKE_MATCH_1})
        list(APPEND signatures ${CMAKE_MATCH_1}:${CMAKE_MATCH_2})
    endforeach()
    list(JOIN names "," names)
    list(JOIN signatures "," signatures)

    add_executable(${target} wasm/abi.c)
    target_link_libraries(${target} PRIVATE libnibl)
    target_compile_options(${target} PRIVATE -Wno-missing-prototypes) # called from JavaScript only
    set_target_properties(${target} PROPERTIES OUTPUT_NAME nibl-${output} SUFFIX .js
        RUNTIME_OUTPUT_DIRECTORY ${PROJECT_SOURCE_DIR}/web/dist)
    target_link_options(${target} PRIVATE
        --no-entry -sSTRICT -sMODULARIZE -sEXPORT_ES6 -sEXPORT_NAME=createNibl -sENVIRONMENT=web,worker,node
        -sFILESYSTEM=0 -sASSERTIONS=0 -sSUPPORT_LONGJMP=0 -sWASM_BIGINT
        -sIMPORTED_MEMORY -sALLOW_MEMORY_GROWTH -sMEMORY_GROWTH_GEOMETRIC_STEP=0 -sMEMORY_GROWTH_LINEAR_STEP=16MB
        -sINITIAL_MEMORY=${initial_memory} -sMAXIMUM_MEMORY=${maximum_memory} -sSTACK_SIZE=1MB
        -sMALLOC=${malloc} -sABORTING_MALLOC=0
        -sINCOMING_MODULE_JS_API=wasmMemory,instantiateWasm,locateFile,print,printErr
        -sEXPORTED_FUNCTIONS=${names} -sSIGNATURE_CONVERSIONS=${signatures})
    add_custom_command(TARGET ${target} POST_BUILD VERBATIM
        COMMAND ${CMAKE_COMMAND} -DGLUE=$<TARGET_FILE:${target}> -P ${PROJECT_SOURCE_DIR}/wasm/glue.cmake)
    set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${PROJECT_SOURCE_DIR}/wasm/glue.cmake)
    if(NIBL_WASM_MEMORY64)
        set(part ${PROJECT_SOURCE_DIR}/wasm/memory64.js)
        target_link_options(${target} PRIVATE --post-js ${part})
        set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${part})
    endif()
    file(CONFIGURE OUTPUT ${PROJECT_SOURCE_DIR}/web/dist/nibl-${output}.d.ts CONTENT
        "declare const create: (options: Record<string, unknown>) => Promise<any>\nexport default create\n")
    if(NIBL_WASM_THREADS)
        target_link_options(${target} PRIVATE -sEXPORTED_RUNTIME_METHODS=PThread -sPTHREAD_POOL_SIZE_STRICT=2 -sDEFAULT_PTHREAD_STACK_SIZE=1MB)
    endif()
endfunction()

add_variant(variant-chat ${variant})
add_variant(variant-quantize ${variant}-quantize quantize)
add_custom_target(variant DEPENDS variant-chat variant-quantize)

if(NIBL_TESTS AND NOT NIBL_WASM_THREADS)
    add_executable(checkkern ${checkkern_sources})
    target_link_libraries(checkkern PRIVATE libnibl)
    set_target_properties(checkkern PROPERTIES SUFFIX .cjs)
    target_link_options(checkkern PRIVATE -sENVIRONMENT=node -sALLOW_MEMORY_GROWTH -sSTACK_SIZE=1MB -sEXIT_RUNTIME)
endif()
