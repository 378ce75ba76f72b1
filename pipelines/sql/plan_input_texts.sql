-- plan_input_texts: what a window's digest is made of, each of its inputs, window after window.
-- returns  text varchar, by the window's number and the batch's path
select concat(batches.path, chr(0), batches.etag, chr(0), batches.size, chr(10)) as text
from feeds join batches on batches.ordinal = feeds.ordinal
order by feeds.number, feeds.ordinal
