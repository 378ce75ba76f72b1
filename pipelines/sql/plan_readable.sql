-- plan_readable: the listing without the batches that cannot be read.
-- creates  listed(path, etag, size), by path
create or replace temp table listed as
select path, etag, size
from listed
where not exists (select 1 from unreadable where unreadable.path = listed.path)
order by rowid
