"""The checker of annotations that tests switch on: an int stands for a float, as the typing rules say."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
