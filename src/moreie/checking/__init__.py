"""Problems of data files and recipes, found before hours of training depend on them."""
