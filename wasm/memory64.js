// @ts-nocheck
// Part of the memory64 variants' glue (--post-js). Emscripten 3.1.69 asks whether tables and memories take 64 bits as
// BigInt, but with a word that engines have changed since (index, now address): those that ship memory64 all do.
if (typeof toIndexType != 'undefined') toIndexType = BigInt
