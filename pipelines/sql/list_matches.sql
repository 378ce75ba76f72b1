-- list_matches: the next pairs of records that may make a row.
-- params   $after bigint (the last ordinal that was listed), $most bigint
-- returns  ordinal, start, size, partner_start, partner_size, all bigint, in order
select ordinal, start, size, partner_start, partner_size
from matched
where ordinal > $after
order by ordinal
limit $most
