"""One command a table: from the files of a data set to its results, resumable at every stage."""
