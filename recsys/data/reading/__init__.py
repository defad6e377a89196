"""Reading ratings: any file, several files, a folder, a prepared store or a DataFrame; every row is accounted for.

```
source        what a source is: files, a folder, a store, a DataFrame; read_interactions
options       how to read and what to keep
layout        separator, header and columns, detected from the first lines
streams       text files as blocks of whole lines in UTF-8       records   text over several lines, joined to one line
delimited     text -> Rows, fast          lines   text -> Rows, line by line          adjacency   user item item ...
tables        Parquet and DataFrames -> Rows                      times     dates and epochs of any unit
rows          Rows, and the account of those that are rejected
assembly      Rows -> Interactions: vocabularies, order          policies  duplicates, min_rating, rare users and items
for_task      what a task needs of them
titles, id_files, hints   small tables of titles, groups and ids; remarks on the data
```
"""

from recsys.data.reading.options import ReadingOptions
from recsys.data.reading.source import find_files, read_interactions, text_layout
from recsys.data.reading.titles import read_groups, read_titles

__all__ = ["ReadingOptions", "find_files", "read_groups", "read_interactions", "read_titles", "text_layout"]
