-- plan_repeated: rows of the index that stand there twice; runs side by side may index a batch both.
-- returns  repeated bigint
select count(*) - count(distinct (time_key, path, etag, size)) as repeated
from indexed
