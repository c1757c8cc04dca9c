"""quietscope: live denoising for Micro-Manager."""

__version__ = "0.1.0"
