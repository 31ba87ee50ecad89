-- Those that are new.
INSERT INTO whatsmeow_lid_map (lid, pn) SELECT lid, pn FROM imported_numbers ON CONFLICT DO NOTHING
