"""Reading ratings: any file, several files, a folder, a prepared store or a DataFrame; every row accounted for.

```
source        what a source is: files, a folder, a store, a DataFrame; read_interactions
options       how to read and what to keep
layout        separator, header and columns, found from the first lines
records       text over several lines, made one line
delimited     text -> Rows          tables   Parquet and DataFrames -> Rows
rows          Rows, and the account of those that do not arrive
assembly      Rows -> Interactions: vocabularies, duplicates, thresholds
titles, hints for people
```
"""

from recsys.data.reading.options import ReadingOptions
from recsys.data.reading.source import find_files, read_interactions, text_layout
from recsys.data.reading.titles import read_titles

__all__ = ["ReadingOptions", "find_files", "read_interactions", "read_titles", "text_layout"]
