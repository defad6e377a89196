"""Why an item is recommended, how true the reasons are, and which interactions look implausible.

reasons       the items of a history behind a recommendation, in ids, in files and in a sentence
explainers    orders of a history: by the model's contributions, by cosine, by popularity, at random
fidelity      whether the items that are named are those the recommendation depends on
audit         the interactions that do not fit the rest: all of it together
plausibility  how plausible each interaction is to a model that has not seen it; two_groups  how likely it is noise
shared_accounts  histories that fall in two blocks

How contributions are found stands with the models: `recsys.models.contributions`.
"""
