'use strict';

const chatData = JSON.parse(document.getElementById('chat-data').textContent);
const connectionId = chatData.connectionId;
const chatLog = document.getElementById('chat-log');
const chatState = document.getElementById('chat-state');
const chatInput = document.getElementById('chat-message-input');

const chatSocket = new WebSocket('ws://' + window.location.host + '/ws/chat/' + connectionId + '/');

chatSocket.onopen = function() {
    chatState.textContent = 'connected';
};

chatSocket.onmessage = function(e) {
    const data = JSON.parse(e.data);
    if (data.type === 'add') {
        addMessage(data.message_id, data.user, data.message);
    } else if (data.type === 'edit') {
        const row = findMessage(data.message_id);
        if (row) row.querySelector('.text').textContent = data.message;
    } else if (data.type === 'delete') {
        const row = findMessage(data.message_id);
        if (row) row.remove();
    }
};

chatSocket.onclose = function() {
    chatState.textContent = 'closed: reload the page';
};

document.getElementById('chat-form').onsubmit = function(e) {
    e.preventDefault();
    if (!chatInput.value) return;
    send({message: chatInput.value});
    chatInput.value = '';
};

chatData.messages.forEach(function(message) {
    addMessage(message.id, message.user, message.text);
});

function send(keys) {
    chatSocket.send(JSON.stringify(Object.assign({user: chatData.user}, keys)));
}

function findMessage(messageId) {
    return Array.from(chatLog.children).find(function(row) {
        return row.dataset.id === messageId;
    });
}

function addMessage(messageId, user, text) {
    const row = document.createElement('li');
    row.dataset.id = messageId;
    row.append(element('b', 'user', user), ' ', element('span', 'text', text));
    if (user === chatData.user) {
        row.append(
            button('edit', 'Edit', function() {
                const changed = window.prompt('Change the message', row.querySelector('.text').textContent);
                if (changed) send({type: 'edit', message_id: messageId, message: changed});
            }),
            button('delete', 'Delete', function() {
                send({type: 'delete', message_id: messageId});
            }),
        );
    }
    chatLog.append(row);
    row.scrollIntoView();
}

function element(tag, className, text) {
    const made = document.createElement(tag);
    made.className = className;
    made.textContent = text;
    return made;
}

function button(className, text, onclick) {
    const made = element('button', className, text);
    made.type = 'button';
    made.onclick = onclick;
    return made;
}
