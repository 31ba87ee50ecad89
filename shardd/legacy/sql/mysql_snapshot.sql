-- All tables as they are at this moment; changes nothing.
START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY
