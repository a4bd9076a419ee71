# Emscripten's glue, so that bundlers for the web can read it: modules of Node are not imported by name, but asked for; the
# options of a worker stand where it is started, and its name is the variant's own.
get_filename_component(name ${GLUE} NAME_WE)
file(READ ${GLUE} text)
string(REGEX REPLACE "import\\([\"'](module|worker_threads)[\"']\\)" "globalThis.process.getBuiltinModule('\\1')" text "${text}")
string(REGEX REPLACE "var workerOptions={([^}]*)name:\"em-pthread\"}(.)worker=(new Worker\\(new URL\\([^)]*\\)),workerOptions\\)"
    "worker=\\3,{\\1name:\"em-pthread-${name}\"})" text "${text}")
file(WRITE ${GLUE} "${text}")
