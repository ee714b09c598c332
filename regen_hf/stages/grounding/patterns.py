"""English patterns of the facts that the rules check: numbers, prices, ratings, counts, opinions and denials."""

from __future__ import annotations

import re

NUMBERS = (  # noqa: SIM905 (a list of strings would be a column)
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
NUMBER = rf"(?:\d[\d,]*|{'|'.join(NUMBERS[1:])}|a dozen)"
THINGS = r"(?:purchases?|items?|products?|orders?|things?|reviews?|buys?)"


def _any_of(words: str, end: str = r"\b") -> re.Pattern[str]:
    """A pattern of any of the alternatives in `words`, which are separated by two spaces or a line break."""
    either = "|".join(re.split(r"\s\s+", words.strip()))
    return re.compile(rf"\b(?:{either}){end}", re.IGNORECASE)


CLAUSE = re.compile(
    r"\s*(?:;|:\s|—|–|,?\s(?:but|while|although|though|whereas|because)\s|,\s(?:and|so|which|who)\s)\s*"
)
NO = r"(?:no|not|never|nothing|none|hardly|without|far from|\w+n['’]t)"
ABSENT = re.compile(
    rf"\b{NO}\b[^.]{{0,30}}?\b(?:bought|buys?|ordered|orders|owns?|purchased|tried|chose|chosen|from|by)\b"
    r"|\b(?:is|are) (?:absent|missing)\b",
    re.IGNORECASE,
)
"""The claim denies a purchase."""
COMPARED = _any_of("more  less  as often  outnumbers?  than  over  so far  again  not even")
BEYOND = _any_of(
    """most  best  favou?rite  first  latest  newest  oldest  recent(?:ly)?  beg[au]n  begins  start(?:s|ed)  only
    outnumbers?  outnumbered  prefers?  preferred  than any  often  rarely  always  every time  usual(?:ly)?"""
)
"""The claim compares or orders purchases, which only the rules for favourites and for the first and last check."""

PRICE = re.compile(r"(?:\$|USD\s?)(\d[\d,]*(?:\.\d+)?)|(\d[\d,]*(?:\.\d+)?)\s?(?:dollars|USD|bucks)\b")
BELOW = _any_of("under  below  less than  at most  no(?:t)? more than  up to  cheaper than  within", r"\s+(?:about )?$")
ABOVE = _any_of("over  above  more than  at least  upwards of  beyond  no less than  exceeds?  exceeding", r"\s+$")
ABOUT = _any_of("about  around  roughly  nearly  almost  close to  some  approximately", r"\s+$")
EVERY = _any_of("every  everything  all  each  always  never  none  nothing  whole  entire  only")
AVERAGE = _any_of("averages?  averaging  mean  typical(?:ly)?  usual(?:ly)?  on the whole")
RATING = re.compile(
    r"\b(\d(?:\.\d+)?|one|two|three|four|five)(?:\s?/\s?5\b"
    rf"|\s(?:out\s)?of\s(?:5|five)\b(?!\s+(?:earlier |their |the )?{THINGS})|(?:\s|-)stars?\b)"
    r"|\baverage (?:rating|score) (?:of|is|at|near|around|close to) (\d(?:\.\d+)?)"
    r"|\b(?:g[ai]ves?|given|got|gets|earn(?:s|ed)|receive[ds]|with|at) (?:it |them )?"
    r"(full marks|top marks|the top score|a perfect score|the lowest score|the lowest mark)\b",
    re.IGNORECASE,
)
OF = re.compile(
    rf"\b({NUMBER}) (?:of|out of|in) (?:the |their |all |these |those |her |his |your )*({NUMBER})\b", re.IGNORECASE
)
COUNT = re.compile(rf"\b({NUMBER}|twice|once) ((?:[a-z-]+ )?{THINGS}\b)?", re.IGNORECASE)
LINK = re.compile(
    r"\s*(?:from|by|of|in|are|were|is|was|bear|carry)\s(?:the |brand |colour |color |made by |from |by )*"
)
"""The words between a count and the thing that is counted: "five purchases from …"."""

THE_BRAND = _any_of("the brand  the maker  the label  this brand")
"""A reference to the brand of the thing that was named before."""
LIKED = _any_of(
    """lov(?:es?|ed)  ador(?:es?|ed)  prais(?:es?|ed|ing)  delight(?:s|ed|ful)?  thrilled  happy  pleas(?:es?|ed|ure)
    satisf(?:ies|ied|ying)  lik(?:es|ed)  (?<=not )like  (?<=n't )like  enjoy(?:s|ed|able)?  impress(?:es|ed|ive)?
    fond  rav(?:es|ed)  success  hit  applaud(?:s|ed)  recommend(?:s|ed)?  won (?:them|her|him) over  glowing  great
    excellent  wonderful  superb  brilliant  fantastic  perfect  splendid  terrific  welcome[ds]?  joy
    treasure[ds]?  just right  gem  bargain  a treat  keen on  worth (?:it|every|the)  worthwhile  good value
    as good as  well made  speaks? (?:well|highly)  spoke (?:well|highly)  swears? by  swore by  cherish(?:es|ed)?
    glad  content with  charmed  exceed(?:s|ed)  surpass(?:es|ed)  compliments?  admir(?:es?|ed)
    approv(?:es?|ed|al)  buy (?:it )?again  high marks  top marks  full marks  thumbs up  lived up  keeper
    cannot fault  can't fault  not be without  delighted  well spent"""
)
DISLIKED = _any_of(
    """disappoint(?:s|ed|ing|ment)?  dislik(?:es?|ed)  hat(?:es?|ed)  unhappy  displeased  regret(?:s|ted)?
    let (?:them |her |him )?down  frustrat(?:es?|ed|ing|ion)  annoy(?:s|ed|ing|ance)?  critici[sz](?:es?|ed|m)
    poor(?:ly)?  fail(?:s|ed|ure)?  dissatisfied  complain(?:s|ed|ts?)?  unimpressed  panned  letdown  fell short
    mistake  blam(?:es?|ed)  waste[ds]?  nuisance  useless  worthless  terrible  awful  horrible  dreadful  bad
    worse  worst  junk  rubbish  a flop  loath(?:es?|ed)  detest(?:s|ed)?  despis(?:es?|ed)  resent(?:s|ed)?  sorry
    returned  sent (?:it )?back  refund(?:ed)?  broke  broken  fell apart  could not stand  couldn't stand  harsh
    grumbl(?:es?|ed)  thrown away  never again  low marks  thumbs down  overpriced  shoddy  flimsy  defective
    trouble[ds]?  problems?  irritat(?:es?|ed|ing)  wish(?:es|ed)? (?:they|she|he) had (?:never|not)  gave up on
    giv(?:es?|ing) up on  angry  cross about  fed up  in the bin  binned  no use  of no use  no good  money down"""
)
EVALUATES = _any_of(
    "turn(?:s|ed) out  prov(?:es?|ed)  verdict  opinion  thinks?  thought  judg(?:es?|ed)  feels?  felt"
)
"""The claim states an opinion, which no rule checks where it has other words than those above."""
NOT = re.compile(rf"\b{NO}\b[^,;.]{{0,20}}$", re.IGNORECASE)
"""A negation right before an opinion, which reverses it."""

MOST = _any_of(
    """most (?:often|of all|frequent(?:ly)?)  most[- ]bought  bought most  more (?:often )?than any  favou?rites?
    first choice  top choice  go-to  nothing beats
    no \\w+ (?:beats|outnumbers|turns up (?:as|more)|is (?:bought|chosen|picked) more)  prefers?  preferred
    number one  loyal to  loyalty  above all  leads?  dominat(?:es|ed)  belongs? to  second to none  beaten by none
    the bulk of  mainly  mostly  predominantly  as (?:often|frequently) as  heads?  headed  tops?  topped
    ranks? (?:first|highest)  turns? to  goes? (?:back )?to  reach(?:es)? for"""
)
"""The claim names what was bought most often."""
FIRST = _any_of(
    """first (?:purchase|order|item|thing|buy)  beg(?:an|ins|un) with  start(?:s|ed) (?:off |out )?with
    opens? (?:the|with)  opened (?:the|with)  earliest  oldest  came first  comes first  came before every(?:thing)?
    to begin with  before (?:anything|everything|all) else"""
)
LAST = _any_of(
    """(?:last|latest|final|newest|most recent) (?:purchase|order|item|thing|buy)  at the (?:very )?end
    end(?:s|ed) with  clos(?:es|ed) (?:the|with)  latest is  newest is  most recent(?:ly)?  came last  comes last
    finish(?:es|ed) with  conclud(?:es|ed) with"""
)
"""The claim is about the first or the last purchase."""
GIFT = _any_of(
    """gifts?  presents?  given  gave  gifted  treat(?:s|ed|ing)?  birthdays?  surpris(?:es?|ed)  remember(?:s|ed)
    (?:shops?|buys?|bought|chose|chosen) for  pick(?:s|ed)? (?:\\w+ )?out for"""
)
PEOPLE = re.compile(
    r"\b(?:their|his|her|your|the) (?:\w+ )?(daughter|son|child|children|kids?|baby|partner|wife|husband|spouse"
    r"|girlfriend|boyfriend|mother|mum|mom|father|dad|parents?|brother|sister|siblings?|uncle|aunt|cousin|nephew|niece"
    r"|grand(?:mother|father|son|daughter|parents?|children)|neighbou?rs?|friends?|colleagues?|coworkers?|boss|teacher)\b",
    re.IGNORECASE,
)
"""A person to whom something is given."""

QUANTIFIER = _any_of(
    "every  everything  each  all  always  never  none  nothing  neither  no  not  \\w+n['’]t  entirely  exclusively"
)
"""The claim is about all purchases, or denies something."""
IDIOM = _any_of(
    """it all  in all  after all  at all  above all  first of all  all in all  not only  no surprise  no wonder
    no doubt  all (?:they|she|he) had for  no(?:t)? (?:more|less|fewer) than"""
)
"""Quantifiers that say nothing about all purchases."""
NO_OTHER = re.compile(r"\bno \w+ is\b", re.IGNORECASE)
"""The denial in "no shade is picked as often", which the rule for favourites reads."""
TIMES = re.compile(
    rf"\b(?:(?:{NUMBER}|many|several|countless|dozens of) times|thrice|twice|once|repeatedly)\b", re.IGNORECASE
)
"""How often something was bought."""
SEQUENCE = _any_of(
    "before  after(?:wards)?  prior to  follow(?:s|ed|ing)  preced(?:es|ed|ing)  then  later  earlier  since  until"
)
"""The order of two things."""
