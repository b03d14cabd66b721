"""The service of ``task=serve``: LitServe's queue and worker around a ``Summarizer``."""
