-- Room for them beside the table that may know some already.
CREATE TEMPORARY TABLE imported_numbers (lid text, pn text) ON COMMIT DROP
