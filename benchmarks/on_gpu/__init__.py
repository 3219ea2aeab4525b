"""Every recipe of torch on a GPU; see ``__main__``."""
