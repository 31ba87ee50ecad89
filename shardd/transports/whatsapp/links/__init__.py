"""Previews of links in texts: title, description and picture of the page, as phones show them below the text.

The first link of a text is found (`finder`), its page fetched once per worker and hour under the rules of media, and what it
says about itself kept (`previews`). HTML is read in a child process (`page_reader`, `page_process`), pictures in
another, which is not that of the jobs' images. The preview shows only what the page says, and the link is the one in the text.

A text never fails for lack of a preview, and waits for it no longer than a bound; then it is sent without.
"""
