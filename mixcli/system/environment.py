"""The environment variables that mixcli reads, for `mixcli --help` and the docs; a test finds one that is missing here.

Each is read where it has its effect. Imported by every start, so that nothing else is imported here.
"""

# name -> one line of `mixcli --help`
VARIABLES = {
    "MIXCLI_HOME": "Folder for models, conversations, settings and caches.",
    "MIXCLI_MODEL": "Model to use if the command line names none.",
    "MIXCLI_PROFILE": "Hardware profile; same as --profile.",
    "MIXCLI_OFFLINE": "1: do not contact the Hub or any server of --endpoint.",
    "MIXCLI_API_KEY": "API key that clients of `mixcli serve` must send.",
    "MIXCLI_KV_DISK": "Disk space for the KV cache of earlier prompts; 0 is off. Default: 4GiB.",
    "MIXCLI_MEASURE": "off: do not measure the CPU; use typical rates.",
    "MIXCLI_PATIENCE": "Seconds without data after which a download is aborted. Default: 120.",
    "MIXCLI_DEBUG": "1: show the traceback of every error.",
}
# of other programs and of the system: for the docs only
OTHER_VARIABLES = {
    "HF_HOME": "Hugging Face's folder; downloads are in its `hub` folder.",
    "HF_HUB_CACHE": "Folder of downloads; HUGGINGFACE_HUB_CACHE is its old name.",
    "HF_TOKEN": "Token for gated repositories; HUGGING_FACE_HUB_TOKEN is its old name.",
    "HF_ENDPOINT": "Address of a mirror of the Hub.",
    "HF_HUB_OFFLINE": "1: do not contact the Hub or a server of --endpoint on another machine.",
    "HF_HUB_ETAG_TIMEOUT": "Seconds to wait for the Hub's list of files.",
    "HF_HUB_DOWNLOAD_TIMEOUT": "Seconds without data before a download reconnects.",
    "HF_HUB_DISABLE_SYMLINKS": "1: make no symlinks in the download folder.",
    "OLLAMA_MODELS": "Folder of Ollama's models.",
    "LMSTUDIO_MODELS": "Folder of LM Studio's models.",
    "HTTPS_PROXY": "Proxy for downloads; also HTTP_PROXY, ALL_PROXY and NO_PROXY.",
    "SSL_CERT_FILE": "Certificates to trust, such as that of a proxy; also SSL_CERT_DIR.",
    "CUDA_VISIBLE_DEVICES": "NVIDIA GPUs to use.",
    "NUMBA_CACHE_DIR": "Folder of compiled kernels.",
    "VISUAL": "Editor of `mixcli chat`; else EDITOR.",
    "NO_COLOR": "1: no colors.",
}

__all__ = ["OTHER_VARIABLES", "VARIABLES"]
