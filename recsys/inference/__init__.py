"""From scores to answers: lists of items and predicted ratings.

topn: the n best unseen items of each user. selection: how they are found fast. ties: the order of equal scores in
evaluation. pairs: predicted ratings of (user, item) pairs.
"""
