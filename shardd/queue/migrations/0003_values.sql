-- Checks of values: texts with visible characters, and JSON that every process of shardd can carry. Everything here is cheap when there
-- is nothing to check, and takes time in proportion to its input at most.

-- Refuses a row: raises an error with the column, the message and the fix. Always raises. Callers assign or return the result so that
-- PL/pgSQL omits the PERFORM context, which would show the call's text to the user.
CREATE FUNCTION shardd.refuse(
    at_column text, message text, hint text, at_table text DEFAULT 'jobs', code text DEFAULT 'check_violation')
    RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = code, SCHEMA = 'shardd', TABLE = at_table, COLUMN = at_column, MESSAGE = message, HINT = hint;
END $$;

-- Whether a text has no visible character. The set is that of three properties of Unicode 16, and one character: White_Space (PropList.txt),
-- Default_Ignorable_Code_Point (DerivedCoreProperties.txt: joiners, marks of direction, variation selectors, fillers of Hangul,
-- tags), the control characters (General_Category Cc), and U+2800, the pattern of Braille without a dot. As code points, because
-- what \s means depends on the locale of the database.
CREATE FUNCTION shardd.is_blank(words text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN words !~ ('[^\u0001-\u0020\u007F-\u00A0\u00AD\u034F\u061C\u115F\u1160\u1680\u17B4\u17B5\u180B-\u180F\u2000-\u200F'
                     '\u2028-\u202F\u205F-\u206F\u2800\u3000\u3164\uFE00-\uFE0F\uFEFF\uFFA0\uFFF0-\uFFF8'
                     '\U0001BCA0-\U0001BCA3\U0001D173-\U0001D17A\U000E0000-\U000E0FFF]');

-- The number of digits after the decimal points of a JSON value's numbers: 0e-16383 takes 12 bytes in memory, and 16 kB as text.
CREATE FUNCTION shardd.decimals(value jsonb) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (SELECT sum(scale(number::numeric)) FROM jsonb_path_query(value, 'strict $.** ? (@.type() == "number")', silent => true) number);

-- Why JSON cannot be carried, as words that follow the name of its column; NULL: it can, or there is none. `most`: bytes as text. Never
-- raises. Numbers are limited to those of MessagePack, in which processes talk, and one that is not 0 must not become 0 when a program
-- reads it as a double. The size in memory is checked first, and the text last: a few bytes can hold numbers whose digits fill a
-- gigabyte. (An array of digits takes 12 bytes for each in memory, and 2 as text.)
CREATE FUNCTION shardd.json_fault(value jsonb, most integer) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE
        WHEN jsonb_typeof(value) <> 'object' THEN format('is a JSON %s, not an object', jsonb_typeof(value))
        WHEN pg_column_size(value) > 8 * most THEN 'is too long'
        WHEN jsonb_path_exists(value, 'strict $.**{33}', silent => true) THEN 'is nested in more than 32 levels'
        WHEN jsonb_path_exists(value, 'strict $.** ? (@ > 18446744073709551615 || @ < -9223372036854775808
                                                      || (@ > -1e-300 && @ < 1e-300 && @ != 0))', silent => true)
            THEN 'has the number ' || regexp_replace(jsonb_path_query_first(value,
                'strict $.** ? (@ > 18446744073709551615 || @ < -9223372036854775808 || (@ > -1e-300 && @ < 1e-300 && @ != 0))',
                silent => true) #>> '{}', '^(.{40}).+$', '\1…') || ', which is out of range'
        WHEN pg_column_size(value) > most / 8 AND shardd.decimals(value) > most THEN 'is too long'
        WHEN octet_length(value::text) > most THEN 'is too long' END;

-- Refuses JSON that cannot be carried.
CREATE FUNCTION shardd.check_json(at_column text, value jsonb, most integer, at_table text DEFAULT 'jobs') RETURNS boolean
    LANGUAGE plpgsql STABLE AS $$
DECLARE
    fault text := shardd.json_fault(value, most);
BEGIN
    IF fault IS NOT NULL THEN
        RETURN shardd.refuse(at_column, format('%s %s', at_column, fault),
            format('Give a JSON object such as {"name": "Ada"}, of at most %s bytes and 32 levels, with numbers from -9223372036854775808 '
                   'to 18446744073709551615 and none closer to 0 than 1e-300.%s', most,
                   CASE WHEN at_table = 'jobs' THEN ' Leave the column out (NULL) for none.' ELSE '' END), at_table);
    END IF;
    RETURN true;
END $$;
