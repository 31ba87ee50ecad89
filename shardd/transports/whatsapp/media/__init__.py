"""The files of messages.

They are fetched (`fetcher`, `download`), held within a budget (`memory`), identified (`file_types`), named (`file_names`) and
previewed (`previews`).

Everything here is a stranger's: sizes, names, addresses, images. Each step has limits of bytes and time, addresses inside the
network are refused unless configured, and images are decoded in a child process. A file that does not fit fails its own job
only.
"""
