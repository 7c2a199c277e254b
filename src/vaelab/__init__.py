"""vaelab: variational autoencoders on images, with numbers one can trust and pictures one can show."""

__version__ = "0.1.0"
