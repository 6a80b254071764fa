"""The front door: `python train.py` trains; it also validates, tests and predicts from a checkpoint.

python train.py                                              # an MLP on the embedded digits
python train.py --model LitLeNet --data MNISTDataModule      # any model on any data
python train.py --config configs/mnist_conv.yaml --accelerator gpu
python train.py test --ckpt_path runs/LitMLP-DigitsDataModule/version_0/checkpoints/best.ckpt
"""

from kindling.cli import main

if __name__ == "__main__":
    main()
