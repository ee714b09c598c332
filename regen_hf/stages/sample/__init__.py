"""The sample world: simulated shoppers with a known truth, as raw review files. No such person exists.

`write` makes what a user would bring (reviews and items in the format of the 2018 Amazon release, a few damaged records
included) and, beside it, the truth: the six narratives and the persona of every shopper, and the hidden trait of every
item. Item texts and reviews tell the brand, kind, colour and use, and what the shopper cares about; which circle of
people buys an item is told by co-purchases alone; the narratives speak of all of it. So a model needs both kinds of
vectors to write them.

    world           items, shoppers and purchases, drawn by seed
    item_text       item records: titles, descriptions, prices
    review_text     review records
    narrative_text  the six narratives
"""
