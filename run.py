"""The Hydra entry point: fine-tune and evaluate any pretrained encoder with any pretrained decoder.

python run.py encoder=bert decoder=gpt2
python run.py -m encoder=bert,roberta decoder=bert,gpt2
python run.py task=check encoder=minilm decoder=minilm data=news
python run.py task=summarize ckpt=runs/demo input=article.txt
"""

from warmstart.cli.main import main

if __name__ == "__main__":
    main()
