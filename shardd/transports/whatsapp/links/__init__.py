"""Previews of links in texts: title, description and picture of the page, as phones show them below the text.

A text never waits long for its preview, and never fails for lack of one: then it is sent without. The first link of a text is
found (`finder`), its page fetched once per worker and hour under the rules of media, and what it says about itself kept
(`previews`). Pages are parsed in a child process (`page_reader`, `page_process`), because a small page can keep a parser busy
for minutes. The preview shows only what the page says, and the link is the one in the text.
"""
