"""The sample world: simulated shoppers with a known truth, as raw review files. No such person exists.

`write` creates raw reviews and items in the format of the 2018 Amazon release, including a few damaged records, and the
truth: the narratives and the persona of every shopper, and the hidden trait of every item. Item texts and reviews state
brand, kind, colour, use and what the shopper cares about; only co-purchases show which circle of people buys an item;
the narratives mention all of these. So a model needs both kinds of vectors to write them.

    world           items, shoppers and purchases, drawn by seed
    item_text       item records: titles, descriptions, prices
    review_text     review records
    narrative_text  the narratives
"""
