from .data.threads import wait_quietly

__version__ = "0.4.0"

wait_quietly()  # before anything imports torch
