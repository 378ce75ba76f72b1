-- plan_repeated: batches once each; runs side by side may have indexed one both.
-- returns  nothing; rows of `batches` go
delete from batches
where rowid not in (select min(rowid) from batches group by ordinal)
