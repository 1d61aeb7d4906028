"""A project of one's own: photos, split, with the configs and the commands that train and judge a model on them."""
