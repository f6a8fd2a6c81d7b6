"""What the program llama-quantize does, through the bindings: llama_model_quantize in a process of its own.

python -m bench.llama_quantize SOURCE TARGET FILE_TYPE_NUMBER THREADS
"""

import ctypes
import sys

import llama_cpp.llama_cpp as llama


def main() -> int:
    source, target, file_type, n_threads = sys.argv[1:]
    params = llama.llama_model_quantize_default_params()
    params.ftype, params.nthread = int(file_type), int(n_threads)
    return int(llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))


if __name__ == "__main__":
    sys.exit(main())
