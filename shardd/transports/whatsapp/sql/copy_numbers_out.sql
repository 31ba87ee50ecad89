-- Which hidden id belongs to which number: true for every session.
COPY (SELECT lid, pn FROM whatsmeow_lid_map) TO STDOUT (FORMAT binary)
