"""The files of messages.

They are fetched (`fetcher`, `download`), held within a budget (`memory`), identified (`file_types`), named (`file_names`) and
described: images by `previews`, audio and video by `recordings`.

Everything here is a stranger's: sizes, names, addresses, contents. Each step has limits of bytes and time, addresses inside the
network are refused unless configured, and files are decoded in child processes (`limited_process`, `limited_child`). A file that
does not fit fails its own job only; one that cannot be analysed is sent without duration and preview.
"""
