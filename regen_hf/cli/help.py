"""Help texts of the commands: what each reads and writes, with examples."""

STAGE_HELP = {
    "sequences": (
        "raw review files -> one purchase history per user",
        """\
Reads review files and item files, joins them, sorts the purchases of each user by time, and splits the users.
Files are JSON lines, CSV, TSV (plain, gzip or zstd) or parquet, from the Amazon releases of 2014, 2018 and 2023 or with
your own columns. Every line is kept or dropped; accounting.json counts the drops by reason, and rejects.parquet
contains the lines that could not be parsed.

  regen sequences runs/office --reviews Office_Products_5.json.gz --items meta_Office_Products.json.gz
  regen sequences runs/mine --reviews 'log/*.csv.gz' --items products.parquet --columns columns.yaml
  regen sequences runs/mine --reviews orders.csv --columns columns.yaml --k-core 5 --since 2020-01-01 --scrub
  regen sequences runs/sample --sample

columns.yaml maps fields to columns. Required: user, item and time, and a title here or in the item files:

  columns: {user: customer_id, item: sku, time: created_at, rating: stars, text: body}
  item_columns: {item: sku, title: name, price: price}
""",
    ),
    "narratives": (
        "histories -> six narratives per user",
        """\
Writes the purchase reason, its explanation, an endorsement, two summaries and a profile of every user.
Backends: `reference` applies fixed rules, offline; `openai` calls any OpenAI-compatible server; `openai-batch` uses its
Batch API at half the price; `transformers` runs a local model. Answers are cached: no call is paid for twice.

  regen narratives runs/office
  regen narratives runs/office --backend openai --base-url http://localhost:8000/v1 --model my-model
  regen narratives runs/office --backend openai --model gpt-4.1-mini --users 20     a preview
  regen narratives runs/office --backend openai-batch --model gpt-4.1-mini --dry-run
  regen narratives runs/office --backend openai-batch --model gpt-4.1-mini --budget 50
""",
    ),
    "ratings": (
        "narratives -> scores of 1 to 7 by an autorater",
        """\
Rates the history and the narratives of every user (section 3.3 of the paper) and aggregates the votes.

  regen ratings runs/office
  regen ratings runs/office --backend openai --model gpt-4.1-mini --votes 11 --budget 200
""",
    ),
    "dataset": (
        "histories, narratives and scores -> a dataset repository for load_dataset",
        """\
Joins histories, narratives and scores to RUN/dataset, a dataset repository in the layout of the Hub.
--from-release reads the official REGEN release (office.jsonl, clothing.jsonl), which contains all three.

  regen dataset runs/office --name office
  regen dataset runs/release --from-release office.jsonl --name office
  python -c "from datasets import load_dataset; print(load_dataset('runs/office/dataset'))"
""",
    ),
    "embeddings": (
        "dataset -> CF vectors of items, content vectors of purchases",
        """\
Fits weighted ALS on the train users, and encodes every purchase with a sentence-transformers model.
Without --content-encoder, a small encoder is trained on the texts of the train users, offline.
--cf-vectors takes the item vectors of any other recommender in place of ALS (docs/any_recommender.md). Items without a
vector are cold. The steps that only ALS serves are then left out: fold_in and recommend of the processor, and the rows
of ALS in regen next-item.

  regen embeddings runs/office --content-encoder sentence-transformers/all-MiniLM-L6-v2
  regen embeddings runs/office --cf-dim 64
  regen embeddings runs/office --cf-vectors vectors.parquet --cf-fitted-on 'the train users'
  regen embeddings runs/office --cf-vectors vectors.npy --cf-asins asins.txt
""",
    ),
    "train": (
        "dataset and vectors -> a model repository",
        """\
Trains the fused model with TRL's SFTTrainer and writes RUN/model, a model repository in the layout of the Hub.
Without --backbone, a small language model is trained from scratch on the narratives, offline.
For several processes: accelerate launch scripts/train.py RUN
The same command resumes an interrupted training from its last checkpoint.

  regen train runs/office --backbone Qwen/Qwen3-0.6B
  regen train runs/office --backbone Qwen/Qwen3-0.6B --set 'training.lora={r: 16}' --learning-rate 1e-4
  regen train runs/office --config train.yaml
  regen train runs/sample --max-steps 200

The section `training` of a --config file also accepts any field of TRL's SFTConfig, directly or under sft: {…}:

  training:
    weight_decay: 0.1
    task_weights: {user_profile: 2}
    lora: {r: 16}
    stages: [{freeze: backbone, max_steps: 200, learning_rate: 1e-3}, {max_steps: 2000}]
""",
    ),
    "evaluate": (
        "model -> narratives of held-out users, scored",
        """\
Writes narratives for users that training has not seen, and for the controls, and scores both. Narratives of an earlier
evaluation with the same model and decoding are scored again without loading the model.

  regen evaluate runs/sample --users 100
  regen evaluate runs/sample --tasks user_profile long_user_summary --temperature 0.7 --top-p 0.9

Related commands:

  regen compare runs/cf runs/content runs/both      several evaluated runs, as in table 1 of the paper
  regen score predictions.parquet                   narratives of any other model
  regen next-item runs/sample                       rank the catalogue for the hidden last purchase
  regen grounding runs/sample                       check claims against each user's record
  regen judge runs/a --against runs/b               let a language model judge two models
""",
    ),
    "next-item": (
        "dataset and vectors -> ranks of the hidden last purchase",
        """\
Hides the last purchase of every test user and ranks the catalogue without the items of the history. Reports
Recall@{1,5,10,50}, NDCG@{5,10} and MRR with 95 % intervals, for all, warm and cold targets. Models: popularity, item
kNN, ALS with new users folded in, content similarity, a blend whose weights are chosen on validation users, and the
trained model, if it has an item head (training.next_item_weight). Nothing is fitted on test users, and no trained model
is needed: a stale or missing one is left out. A model with an item head that learnt the endorsement also endorses its
own first choice, for --endorsed-users. Writes RUN/next_item/results.json, ranks.parquet with the rank of every target,
and endorsements.parquet.

  regen next-item runs/office
  regen next-item runs/office --users 5000
""",
    ),
    "grounding": (
        "narratives -> claims checked against each user's record",
        """\
Splits the narratives of every model, and the references, into claims and looks each claim up in the user's history and
item records: items, brands, categories, colours, prices, ratings, counts, verdicts on a named item. Precision: the
share of checked claims that are supported. Recall: the share of the reference's claims that the text covers. Both with
95 % intervals over users. Endorsements of the model's own first choice (regen next-item) are checked too.
Writes RUN/grounding/results.json, and claims.parquet with every claim, its verdict, and the names that are not in the
record.
The rules use the words of the catalogue. Claims that the rules cannot check stay unchecked, unless an NLI cross-encoder
(--nli) or a language model (--backend, --model) judges them. Answers are cached: no call is paid for twice.

  regen grounding runs/sample
  regen grounding runs/office --nli cross-encoder/nli-deberta-v3-base
  regen grounding runs/office --backend openai --model gpt-4.1-mini --dry-run
""",
    ),
    "judge": (
        "narratives of two models -> win rates by a language model",
        """\
Shows a language model the narratives of two models about the same user, with the user's history. Each pair is judged in
both orders and in several votes; ties are allowed. Reports win rates of RUN with 95 % intervals over users, the effects
of order and length on the verdicts, and the agreement of the votes. Warns if the judge belongs to the same model family
as a writer. Answers are cached: no call is paid for twice. --dry-run shows the cost, --budget limits it.
Writes RUN/judge/results.json, and votes.parquet with every vote.

  regen judge runs/office --against runs/office-content --backend openai --model gpt-4.1-mini --dry-run
  regen judge runs/office --against runs/office-content --backend openai --model gpt-4.1-mini --votes 5 --budget 20
  regen judge runs/office --against runs/office --model-of-other nearest --backend openai --model gpt-4.1-mini
  regen judge runs/office --against theirs.parquet --model-of-other their-model --backend openai --model gpt-4.1-mini
""",
    ),
    "attribution": (
        "model -> parts of its soft tokens, influence of each purchase",
        """\
Analyses the trained model (section 6 of the paper). For the soft token of every item: the norms of its CF and content
parts, the nearest word tokens, and its position among the words on a t-SNE map. For the narratives of a few users: how
the likelihood changes when each purchase is left out. Tests the citations of --tested-users: whether a sentence goes
when the text is written again without the purchases that it cites, and stays with only them; and how often the profile
changes with a neutral purchase, with two swapped and with a paraphrased review. Writes RUN/attribution; `regen figures`
draws the results.

  regen attribution runs/sample
  regen attribution runs/office --points 0 --users 10
""",
    ),
    "figures": (
        "results -> figures",
        """\
Draws the available outputs of a run: items, histories, ratings over time and splits, scores and agreement of the
autorater, the training loss, the scores of the evaluation, soft tokens and the influence of purchases.

  regen figures runs/sample
""",
    ),
}
"""Summary and description of the command of each stage."""

QUICKSTART = """\
Builds the sample world, its dataset and a small model, and prints scores, examples, and Recall@10 of the next purchase.
The model is trained for {steps} steps, which is enough for a first look; more steps give better narratives.

  regen quickstart
  regen quickstart runs/full --set training.max_steps=1200
"""

RUN = """\
Runs all stages in order and skips those that are fresh.

  regen run runs/mine --reviews R.json.gz --items I.json.gz
  regen run runs/mine --config mine.yaml --set training.max_steps=2000
  regen run runs/sample --sample --until dataset
"""

COMPARE = """\
Compares evaluated runs as in table 1 of the paper, such as three seeds each of training.embedding_mode=cf, content and
both, with p-values. Reads the evaluations of the runs, and writes comparison.json, .md and .tex into RUN/comparison of
the first run, or into --out.

  regen compare runs/cf runs/content runs/both --out tables/office
"""

SCORE = """\
Scores the narratives of any model. PREDICTIONS is a parquet file with the columns reviewer_id, task, model, prediction
and reference. --references takes the references and the encoder from a run. The scores are written into a folder beside
the file, or into --out.

  regen score predictions.parquet --encoder sentence-transformers/all-MiniLM-L6-v2
  regen score predictions.parquet --references runs/office
"""

STATUS = """\
Lists the stages of a run with their state, seconds and counts.

  regen status runs/mine
"""

REPORT = """\
Writes RUN/report.html from the available outputs of a run: data, narratives, ratings, training curves, tables, figures,
ten shoppers with the reference and the models' narratives side by side, settings, versions, time and cost of every
stage. The report is one file with embedded images. It needs no network, contains no script, and opens in any browser.
Reviews and narratives are shown as text; absolute paths are removed from the settings.

It also lists which numbers the same settings reproduce exactly, and which only approximately on another machine.

  regen report runs/sample
"""

INSPECT = """\
Prints the purchases of one shopper, oldest first, and the narratives with their scores.
Without --user it shows the first test user and lists others.
--request prints the requests about a shopper to the narrator and the raters, message by message, with every stored
answer as the model wrote it and why it cannot be used or which checks it failed. It sends nothing, and works while
another process sends requests.
--recommendations shows the first ten items that another system recommends to a shopper, each with the reason that the
model of the run writes.

  regen inspect runs/sample
  regen inspect runs/office --user A101G2KLTWSA51
  regen inspect runs/office --request A101G2KLTWSA51
  regen inspect runs/office --recommendations top10.parquet --user A101G2KLTWSA51
"""

PUSH = """\
Pushes the outputs of a run: the dataset to ORG/regen, beside earlier runs in that repository, the model to
ORG/regen-<run>, the metric to ORG/regen_narrative, the demo to ORG/regen-demo; all four, or the selected ones.
It first lists every file and every change on the Hub, and stops at secrets, absolute paths and reviewer names.
The same command resumes an interrupted push. The token comes from `hf auth login` or HF_TOKEN. See docs/publish.md.

  regen push runs/mine --namespace my-org --dry-run
  regen push runs/mine --namespace my-org --private --verify
  regen push runs/mine --namespace my-org --dataset --dataset-name my-reviews --tag v1
"""

EXPORT = """\
Writes RUN/export/vllm: the bare language model, which vLLM serves without custom code, and the encoder that turns
histories into prompt embeddings. docs/serve_on_vllm.md explains how to serve them.

  regen export runs/office --to vllm
"""

DEMO = """\
Serves the app of the Space with the model of a run.

  regen demo runs/sample
"""

REFRESH = "request downloaded URLs again, and fetch the files that changed"
RECOMMENDATIONS = "show this list of another system with reasons: parquet or CSV with reviewer_id, asin and rank"
COLUMNS = "YAML file that maps your columns: columns: {user: …, item: …, time: …}, item_columns: {…}"

EXAMPLES = """\
start here:
  regen quickstart                                   everything, on simulated shoppers, offline, in minutes
  regen run runs/mine --reviews R.json.gz --items I.json.gz
                                                     every stage, on your reviews
  regen status runs/mine                             the state of every stage
  regen <command> --help                             inputs, outputs and settings of a command
"""
