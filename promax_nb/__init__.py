from .data.threads import ask_for_large_pages, wait_quietly

__version__ = "0.4.0"

wait_quietly()  # before anything imports torch
ask_for_large_pages()
