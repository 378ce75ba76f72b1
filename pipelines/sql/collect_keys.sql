-- collect_keys: hashes of what would be exported, for find_duplicates.
-- params   those of disposed_events
-- returns  key uhugeint, batch int, row bigint
{{disposed_events}}
select md5_number({{key}}) as key, batch, row
from disposed
where disposition = 0 and {{keyed}}
