"""A deep belief network as a scikit-learn classifier: greedy pretraining, then fine-tuning with labels."""

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from steadygrad.boltzmann import DBNClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, test_size=0.2, stratify=y, random_state=0)
classifier = DBNClassifier((64, 64), n_epochs=60, batch_size=32, learning_rate=5e-3, random_state=0)
classifier.fit(X_train, y_train)
print(f"accuracy on held-out digits: {classifier.score(X_test, y_test):.3f}")
