#!/usr/bin/env python3
"""Runs a WASI program: the `nibl` command, or another with `--module FILE`, given first.

    npm run wasi -- run MODEL -p TEXT

A wasmtime command on PATH is used, else the wasmtime library in .toolchain. The program sees the current folder,
and the folder of every argument that names a file.
"""

import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FORWARDED = ("NIBL_",)


def build():
    """Sets up and builds; quiet unless it fails."""
    for step in ["wasm/setup.js", "wasmtime"], ["wasm/build.js", "--no-tests", "wasi"]:
        if subprocess.run(["node", *step], cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode != 0:
            sys.exit(1)
    return os.path.join(ROOT, "build/wasi/nibl.wasm")


def folders(arguments):
    """The folders the program may read, by the names its arguments use."""
    names = ["."]
    for argument in arguments:
        folder = os.path.dirname(argument)
        if folder and os.path.exists(argument) and folder not in names:
            names.append(folder)
    return names


def run_with_command(command, module, arguments, environment):
    flags = [f"--dir={name}" for name in folders(arguments)]
    flags += [f"--env={name}={value}" for name, value in environment.items()]
    return subprocess.run([command, "run", "-W", "relaxed-simd", *flags, module, *arguments], check=False).returncode


def run_with_library(module, arguments, environment):
    home = os.path.join(ROOT, ".toolchain")
    found = [name for name in sorted(os.listdir(home)) if name.startswith("wasmtime-")] if os.path.isdir(home) else []
    if not found:
        sys.exit("nibl: no wasmtime on PATH and none in .toolchain: run `node wasm/setup.js wasmtime`")
    sys.path.insert(0, os.path.join(home, found[-1]))
    import wasmtime  # pylint: disable=import-outside-toplevel

    config = wasmtime.Config()
    config.cache = True
    config.wasm_relaxed_simd = True
    store = wasmtime.Store(wasmtime.Engine(config))
    wasi = wasmtime.WasiConfig()
    wasi.argv = [os.path.basename(module), *arguments]
    wasi.env = list(environment.items())
    wasi.inherit_stdin()
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    for name in folders(arguments):
        wasi.preopen_dir(name, name)
    store.set_wasi(wasi)
    linker = wasmtime.Linker(store.engine)
    linker.define_wasi()
    instance = linker.instantiate(store, wasmtime.Module.from_file(store.engine, module))
    try:
        instance.exports(store)["_start"](store)
    except wasmtime.ExitTrap as end:
        return end.code
    return 0


def main(arguments):
    if arguments[:1] == ["--module"]:
        module, arguments = arguments[1], arguments[2:]
    else:
        module = build()
    environment = {name: value for name, value in os.environ.items() if name.startswith(FORWARDED)}
    command = shutil.which("wasmtime")
    if command:
        return run_with_command(command, module, arguments, environment)
    return run_with_library(module, arguments, environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
