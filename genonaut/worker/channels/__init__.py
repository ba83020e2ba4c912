"""Hold the channels, one module each; what a channel is, ``worker/channel.py`` says."""
