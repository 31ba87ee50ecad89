"""Files of incoming messages: downloaded below a folder, if the config asks for it (`inbox.media`).

Promise: a message is stored and reported without waiting for its file; the row gets the file's path only once the file is
complete, checked against the message and on the disk; a file is deleted with its row, whoever deletes that.

States of a file: awaited (the row names the node, and neither path nor error), failed (an error; another attempt may follow),
stored (a path), deleted with its row. What is awaited outlives this process: the spool keeps the message's file, with the key,
until the file is stored or given up (`IncomingSpool.hold`).

Failures: everything that WhatsApp or the disk refuses is an error of that row, tried again for a day if it may pass, and a disk
without room is a problem in `status` as well. A row is never lost for its file.

Never: a name, a host or a size that the sender chose (names are random, the host is fixed, and a file that grows beyond the limit
is cut off); a key in the database, in a log or in an error; anything that a send waits for.

Why the supervisor downloads and not the library: the library's `download_media_with_path` needs a client that is logged in, so it
would open clients or keep them open; it reads the whole answer into memory, however large (whatsmeow, download.go: io.ReadAll),
tries five times without a deadline (goneonize passes context.Background), and does not end when its client is closed, whose lock
sends wait for. The storage itself asks for no login: WhatsApp's files are public to whoever knows their path, and secret by their
key (whatsmeow signs no request; Baileys, messages-media.ts, fetches `https://mmg.whatsapp.net` and the path). So a file needs no
session, no client and no lock, can be fetched after a restart, and is written as it arrives.

Files of the Cloud API have an id, which Meta answers with a URL and the account's token; they come the same way.

`sealed` decrypts and checks; `storage` knows where files are, and `transfer` gets them; `folder` owns them; `room` knows how
many bytes they may take; `downloads` decides what happens when.
"""
